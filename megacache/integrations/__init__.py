"""What ties megacache to programs that compile: each module serves one of them, and is loaded by it."""
