"""End-to-end tests: the built programs, real sockets, one scenario per test."""
