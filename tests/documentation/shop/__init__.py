"""The site of the documentation's examples, which import it as `shop`."""
