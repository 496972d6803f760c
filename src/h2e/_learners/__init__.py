"""One model: what learners keep of a spot, and how they learn from it."""

from __future__ import annotations
