"""What training and evaluation share: optional packages, the reader of pictures, lists of them."""
