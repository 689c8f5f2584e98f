"""Commands that only look: the life of a document, samples, figures of a folder, two versions compared."""
