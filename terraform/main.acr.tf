resource "azurerm_container_registry" "this" {
  count = var.registry_name == null ? 0 : 1

  name                   = var.registry_name
  resource_group_name    = azurerm_resource_group.this.name
  location               = azurerm_resource_group.this.location
  sku                    = var.registry_sku
  admin_enabled          = false
  anonymous_pull_enabled = var.registry_anonymous_pull
  tags                   = var.tags

  dynamic "georeplications" {
    for_each = sort(var.registry_replica_locations) # the provider wants them in this order

    content {
      location                        = georeplications.value
      global_endpoint_routing_enabled = true
      tags                            = var.tags
    }
  }
}

locals {
  # Whether there is one must be known before it is made; its id is not.
  has_registry = var.registry_name != null || var.registry_id != null
}

# "Attached": the nodes' own identity may pull, without a secret in any namespace.
resource "azurerm_role_assignment" "pull" {
  count = local.has_registry ? 1 : 0

  scope                = one(concat(azurerm_container_registry.this[*].id, compact([var.registry_id])))
  role_definition_name = "AcrPull"
  # Only a made-up cluster of terraform test has no identity: mocks cannot fill this list.
  principal_id                     = try(azurerm_kubernetes_cluster.this.kubelet_identity[0].object_id, "none")
  principal_type                   = "ServicePrincipal"
  skip_service_principal_aad_check = true # the identity is some seconds old
}
