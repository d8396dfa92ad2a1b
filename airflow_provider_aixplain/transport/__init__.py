"""The only rooms that open sockets."""
