"""Where the time of the published form goes, against the bytes that must move and the multiply-adds."""
