"""Several models as one: fold models, the stack over them, what they are trained on, and how they are stored."""
