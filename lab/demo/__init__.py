"""The demo, with no download: pictures from pictures, in the toy world."""
