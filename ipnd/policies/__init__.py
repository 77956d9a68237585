"""Delivery policies: pure code that decides who gets a frame. One file each, one row in ``registry``."""
