"""Colour as arrays: estimate the stains of slides, and bring images to a reference."""
