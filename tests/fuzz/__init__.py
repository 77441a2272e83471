"""Feed the readers of what a store holds with bytes that somebody has changed."""
