terraform {
  # 1.9: a validation may look at another variable.
  required_version = ">= 1.9, < 2.0"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 5.2" # arguments as of 5.2.0 (2026-08-20)
    }
  }
}

provider "azurerm" {
  subscription_id = var.subscription_id

  # From 5.0 on the provider registers none by itself; for one that is registered this does nothing.
  resource_providers_to_register = [
    "Microsoft.Compute",
    "Microsoft.ContainerRegistry",
    "Microsoft.ContainerService",
    "Microsoft.ManagedIdentity",
    "Microsoft.Network",
  ]

  features {
    resource_group {
      # Its group is the cluster's own: what Azure put there besides goes with it.
      prevent_deletion_if_contains_resources = false
    }
  }
}
