"""A real cluster: access, checks, image cache, recording, ownership. Knows nothing of engines."""
