variable "admin_cidrs" {
  type        = set(string)
  description = "Addresses that may reach the server, by SSH alone, for example [\"203.0.113.7/32\"]."
  nullable    = false

  validation {
    condition     = length(var.admin_cidrs) > 0 && alltrue([for c in var.admin_cidrs : can(cidrhost(c, 0))])
    error_message = "Name at least one network in CIDR form, for example 203.0.113.7/32."
  }

  validation {
    condition     = alltrue([for c in var.admin_cidrs : !endswith(c, "/0")])
    error_message = "The whole Internet is not an administrator: name your own addresses."
  }
}

variable "backups" {
  type        = bool
  description = "Daily backups of the server's own disk. The data is on the volume, which they do not cover."
  default     = false
  nullable    = false
}

variable "delete_protection" {
  type        = bool
  description = "Whether the volume with the data refuses to be deleted. Set it to false and apply before a destroy."
  default     = true
  nullable    = false
}

variable "location" {
  type        = string
  description = "Where the server stands."
  default     = "nbg1"
  nullable    = false
}

variable "name" {
  type        = string
  description = "Name of the server, and the beginning of the other names."
  default     = "cryptoviz"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,39}$", var.name))
    error_message = "Small letters, digits and dashes, at most 40, a letter first."
  }
}

variable "repository" {
  type        = string
  description = "Git repository that holds docker-compose.yml and the pipeline; the server must be able to read it without a password."
  default     = "https://github.com/cryptoviz/cryptoviz.git"
  nullable    = false

  validation {
    condition     = can(regex("^https://[A-Za-z0-9./_~-]+$", var.repository))
    error_message = "An https:// address without a user, a password or a query: it is readable on the server."
  }
}

variable "revision" {
  type        = string
  description = "Tag or commit of the repository to run. A change of it here replaces nothing: see README.md, Update."
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$", var.revision))
    error_message = "A tag, a branch or a commit."
  }
}

variable "server_type" {
  type        = string
  description = "Size of the server. Kafka, PostgreSQL, Grafana and the engine fit in 4 GB; building the image wants 2 cores."
  default     = "cx33"
  nullable    = false
}

variable "ssh_public_key" {
  type        = string
  description = "Public key of the administrator, one line: ssh-ed25519 AAAA… name."
  nullable    = false

  validation {
    condition     = can(regex("^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/=]+( [^\n]*)?$", trimspace(var.ssh_public_key)))
    error_message = "The public half of a key, one line that begins with its type."
  }
}

variable "volume_size" {
  type        = number
  description = "Gigabytes for the data: Kafka's logs, the database, Grafana. It can grow later, never shrink."
  default     = 40
  nullable    = false

  validation {
    condition     = var.volume_size >= 10 && floor(var.volume_size) == var.volume_size
    error_message = "A whole number of gigabytes, 10 or more."
  }
}
