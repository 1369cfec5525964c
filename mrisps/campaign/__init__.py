"""Many files: one loop, a journal, and its clients batch, evaluate and tune."""
