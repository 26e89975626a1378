"""Light: environments, weather and shading of rasterized colors."""
