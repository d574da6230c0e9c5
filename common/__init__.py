"""What training and evaluation share: optional packages, lists of pictures and captions."""
