"""parviraptor: the queues that ours are the successors of. Its bulk API is Django's."""
