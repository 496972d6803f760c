"""A slide as arrays: its image, its spots, tiles around them, where the tissue is. Nothing here knows SpatialData."""
