"""Published claims, an id each, beside what came out here: agrees, differs, cannot tell, or not run."""
