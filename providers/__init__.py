"""Realtime voice models behind one seam (base.py), one adapter a provider."""
