"""Pictures before they meet the encoder: cut, resized, sharpened, in tiles, or turned into noise."""
