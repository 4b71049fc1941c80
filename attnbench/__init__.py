"""For any attention mechanism: what accuracy it costs, what time and memory it saves, and how sure we are of it."""

__version__ = "0.1.0"
