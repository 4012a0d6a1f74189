"""The TCP shell: what connects conversations to Twisted's stream transports."""
