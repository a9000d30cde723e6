"""Measurements that were really made: their files, in several layouts."""
