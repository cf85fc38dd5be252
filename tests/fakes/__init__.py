"""Hand-written stand-ins for time, sockets and peers."""
