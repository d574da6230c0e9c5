"""Model files: what is known of released ones, what each file on disk is, and which serve an intent."""
