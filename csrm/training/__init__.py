"""The training loop, what it minimises, and how it is spread over workers. Plain torch."""
