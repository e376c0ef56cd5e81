"""The control plane's page in a real browser; see README.md one folder up."""
