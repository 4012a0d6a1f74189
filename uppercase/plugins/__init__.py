"""How a function or a class becomes a plugin: its declaration, its arguments, its adapters."""
