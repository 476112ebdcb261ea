"""Photos and paintings: where they come from, how they are read, what is prepared of them, and samples."""
