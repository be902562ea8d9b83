terraform {
  required_version = ">= 1.11"

  required_providers {
    hcloud = {
      source  = "hetznercloud/hcloud"
      version = "~> 1.68"
    }
  }
}

# The token comes from the environment variable HCLOUD_TOKEN.
provider "hcloud" {}
