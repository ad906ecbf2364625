"""What the tests and the demo stand on: isolated sessions, test hosts, base images, leak checks."""
