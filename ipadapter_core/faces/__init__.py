"""Faces in pictures: found by SCRFD, told apart by ArcFace, both run from the ONNX files as they are."""
