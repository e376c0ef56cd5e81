package history

// Limit makes a store keep so many bytes of compressed texts.
func (s *Store) Limit(bytes int) { s.limit = bytes }
