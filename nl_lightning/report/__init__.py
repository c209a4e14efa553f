"""From records to compared tables: collate (numbers), claims (comparisons), render (text). No torch."""
