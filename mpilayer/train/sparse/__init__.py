"""The sparse autoencoder: its cost over all ranks, and what is done with it."""
