"""What a client asks for → specs. `container` is the whole request, the others are parts of it."""
