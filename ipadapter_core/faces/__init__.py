"""Faces in pictures: detected by SCRFD and embedded by ArcFace, which run from their ONNX files."""
