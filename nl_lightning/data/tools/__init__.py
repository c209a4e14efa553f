"""What is done to a whole data set beforehand: census, copies, shards."""
