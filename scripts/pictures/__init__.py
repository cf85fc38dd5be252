"""A browser that programs drive, and the pictures of the README that are made with it."""
