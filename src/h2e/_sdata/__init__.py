"""The door to SpatialData and AnnData: the only package that reads or writes them."""
