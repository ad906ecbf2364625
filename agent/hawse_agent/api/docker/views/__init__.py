"""What there is, in Docker's JSON. One file a noun, one function a shape; pure."""
