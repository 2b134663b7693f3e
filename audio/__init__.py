"""Sound without I/O: frames, resampling, voice activity, playout, recording format."""
