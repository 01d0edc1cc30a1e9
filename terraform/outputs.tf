output "credentials_command" {
  description = "Writes the cluster's access into a kubeconfig of its own."
  value = join(" ", [
    "az aks get-credentials",
    "--subscription ${var.subscription_id}",
    "--resource-group ${azurerm_resource_group.this.name}",
    "--name ${azurerm_kubernetes_cluster.this.name}",
    "--file ${abspath("${path.root}/kubeconfig")}",
    "--overwrite-existing",
  ])
}

output "kubeconfig" {
  description = "Where it goes: export KUBECONFIG=…"
  value       = abspath("${path.root}/kubeconfig")
}

output "context" {
  description = "The context in it: engine.context=…"
  value       = azurerm_kubernetes_cluster.this.name
}

output "registry" {
  description = "What nodes may pull from: cluster.registry.server=…"
  value = one(concat(
    azurerm_container_registry.this[*].login_server,
    [for id in compact([var.registry_id]) : "${lower(element(split("/", id), length(split("/", id)) - 1))}.azurecr.io"],
  ))
}

output "registry_login_command" {
  description = "Lets docker on this machine push to it."
  value = local.has_registry ? "az acr login --name ${one(concat(
    azurerm_container_registry.this[*].name,
    [for id in compact([var.registry_id]) : element(split("/", id), length(split("/", id)) - 1)],
  ))}" : null
}

output "resource_group" {
  description = "What is left after all else failed: az group delete --name …"
  value       = azurerm_resource_group.this.name
}

output "expiry" {
  description = "From when on `imgpull janitor --azure --yes` removes all of it: nothing does by itself."
  value       = var.tags["expiry"]
}
