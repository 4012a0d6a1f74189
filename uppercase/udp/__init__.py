"""The UDP shell: sockets, and ports that serve a `Responder`."""
