"""The Flower ClientApp: what a client does when the server speaks to it."""
