"""One offline page with everything that was decided, from the metrics and annotations of all stages."""
