"""The engines: Flower grids that run ClientApps in this process or on Ray actors."""
