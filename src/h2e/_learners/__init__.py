"""One model: what learners keep of a spot, and how they learn from it."""
